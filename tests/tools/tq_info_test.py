"""Runs `tq info` ($TQ) on GGUF files made here: right ones, odd ones, broken ones."""
import json
import os
import random
import struct
import subprocess
import tempfile
import unittest

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
FORMATS = {U8: "<B", U32: "<I", I32: "<i", F32: "<f", BOOL: "<b", U64: "<Q"}


def text(value):
    return struct.pack("<Q", len(value)) + value


def scalar(kind, value):
    return text(value.encode()) if kind == STRING else struct.pack(FORMATS[kind], value)


def pair(key, kind, value, element=None):
    data = text(key.encode()) + struct.pack("<I", kind)
    if kind == ARRAY:
        return data + struct.pack("<IQ", element, len(value)) + b"".join(scalar(element, v) for v in value)
    return data + scalar(kind, value)


def gguf(pairs, version=3, tensor_floats=0):
    """The bytes of a file with these metadata and, if asked for, one f32 tensor."""
    data = b"GGUF" + struct.pack("<IQQ", version, 1 if tensor_floats else 0, len(pairs))
    data += b"".join(pair(*p) for p in pairs)
    if tensor_floats:
        data += text(b"weight") + struct.pack("<IQIQ", 1, tensor_floats, 0, 0)
        data += bytes(-len(data) % 32) + bytes(4 * tensor_floats)
    return data


def model(**changes):
    """A llama with 4 layers, 8 heads, 2 KV heads of 64 values; None removes a key."""
    pairs = {
        "general.architecture": (STRING, "llama"),
        "general.name": (STRING, "test"),
        "llama.block_count": (U32, 4),
        "llama.context_length": (U32, 2048),
        "llama.embedding_length": (U32, 512),
        "llama.attention.head_count": (U32, 8),
        "llama.attention.head_count_kv": (U32, 2),
    }
    for name, value in changes.items():
        pairs["general.architecture" if name == "architecture" else "llama." + name.replace("__", ".")] = value
    return [(key, *value) for key, value in pairs.items() if value is not None]


def packed_bytes(bits, group, n_embd, cells):
    blocks = -(-cells // 64)
    return n_embd * blocks * 64 * bits // 8 + -(-n_embd // group) * blocks * 64


def preset_bytes(k, v, layers, cells):
    return sum(packed_bytes(k, 32, a, cells) + packed_bytes(v, 64, b, cells) for a, b in layers)


class TqInfo(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def run_tq(self, *args, **environment):
        env = {k: v for k, v in os.environ.items() if not k.startswith("TURBOQUANT_")}
        env.update(environment)
        return subprocess.run([os.environ["TQ"], *args], capture_output=True, text=True, timeout=60, env=env)

    def file(self, data):
        path = os.path.join(self.folder.name, "m.gguf")
        with open(path, "wb") as out:
            out.write(data)
        return path

    def info(self, pairs, *args, **options):
        result = self.run_tq("info", "--json", "--model", self.file(gguf(pairs, **options)), *args)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        report = json.loads(result.stdout)["model"]
        report["bytes"] = {cost["type"]: cost["bytes"] for cost in report["kv_cache"]}
        return report

    def assert_refused(self, data, *words):
        path = self.file(data)
        result = self.run_tq("info", "--json", "--model", path)
        self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
        self.assertIn(path, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    # ---- without a model ----

    def test_isa_and_presets(self):
        report = json.loads(self.run_tq("info", "--json").stdout)
        self.assertEqual(report["isa"]["selected"], report["isa"]["available"][-1])
        k4v4 = next(p for p in report["presets"] if p["name"] == "k4v4")
        fast = next(p for p in report["presets"] if p["alias"] == "fast")
        self.assertEqual((fast["name"], fast["exact_cells"]), ("k4cv4+sink1+recent15", 16))
        self.assertEqual((k4v4["key_bits"], k4v4["value_bits"], k4v4["mean_bits"]), (4.25, 4.125, 4.1875))
        self.assertEqual((k4v4["default"], fast["default"]), (False, True))

    def test_isa_of_the_environment(self):
        report = json.loads(self.run_tq("info", "--json", TURBOQUANT_ISA="scalar").stdout)
        self.assertEqual(report["isa"]["selected"], "scalar")
        result = self.run_tq("info", TURBOQUANT_ISA="sse9")
        self.assertEqual(result.returncode, 2)
        self.assertIn("available: scalar", result.stderr)

    def test_usage(self):
        self.assertEqual(self.run_tq("--help").returncode, 0)
        self.assertRegex(self.run_tq("--version").stdout, r"^tq \d+\.\d+\.\d+\n$")
        for args in ("", "nothing", "info --preset k9v9", "info --ctx 0 --model x", "info --ctx 8", "info --json=x"):
            self.assertEqual(self.run_tq(*args.split()).returncode, 2, args)

    # ---- models ----

    def test_bytes_of_a_plain_model(self):
        report = self.info(model(), tensor_floats=16)
        values = 2 * 4 * 128 * 2048
        self.assertEqual((report["ctx"], report["n_cells"], report["n_layer_kv"]), (2048, 2048, 4))
        sizes = [report["bytes"][name] for name in ("f16", "q8_0", "q4_0")]
        self.assertEqual(sizes, [2 * values, values * 34 // 32, values * 18 // 32])
        for k, v in ((4, 4), (4, 3), (2, 2), (8, 8)):
            self.assertEqual(report["bytes"][f"k{k}v{v}"], preset_bytes(k, v, [(128, 128)] * 4, 2048))

    def test_exact_cells_are_counted(self):
        report = self.info(model(), "--preset", "k4v4+sink4+recent60", tensor_floats=16)
        exact = 4 * 2 * 64 * 128 * 2   # layers, K and V, cells, values, bytes
        self.assertEqual(report["bytes"]["k4v4+sink4+recent60"], preset_bytes(4, 4, [(128, 128)] * 4, 2048) + exact)

    def test_context_is_padded_as_in_llama_cpp(self):
        report = self.info(model(), "--ctx", "257", "--preset", "3.5")
        self.assertEqual((report["ctx"], report["n_cells"]), (257, 512))
        self.assertEqual(list(report["bytes"]), ["f16", "q8_0", "q4_0", "k3v4"])
        self.assertEqual(report["bytes"]["k3v4"], preset_bytes(3, 4, [(128, 128)] * 4, 512))

    def test_heads_may_differ_by_layer_and_side(self):
        heads = (ARRAY, [2, 0, 1, 4], I32)
        sizes = {"attention__key_length": (U32, 96), "attention__value_length": (U64, 32)}
        report = self.info(model(attention__head_count_kv=heads, **sizes))
        layers = [(192, 64), (96, 32), (384, 128)]
        self.assertEqual(report["n_layer_kv"], 3)
        self.assertEqual(report["bytes"]["f16"], sum(2 * 2048 * (a + b) for a, b in layers))
        self.assertEqual(report["bytes"]["k4v4"], preset_bytes(4, 4, layers, 2048))
        self.assertIn("1 of 4 layers", report["notes"][0])

    def test_without_head_count_kv_every_head_has_one(self):
        self.assertEqual(self.info(model(attention__head_count_kv=None))["bytes"]["f16"], 2 * 2 * 4 * 512 * 2048)

    def test_layers_without_a_cache(self):
        cases = [("full_attention_interval", 2, 2), ("attention__shared_kv_layers", 3, 1)]
        cases.append(("nextn_predict_layers", 1, 3))
        for key, value, n in cases:
            self.assertEqual(self.info(model(**{key: (U32, value)}))["n_layer_kv"], n, key)

    def test_latent_attention_caches_one_row(self):
        sizes = {"attention__key_length": (U32, 576), "attention__key_length_mla": (U32, 192)}
        report = self.info(model(attention__head_count_kv=(U32, 1), **sizes))
        self.assertEqual(report["bytes"]["f16"], 2 * 4 * 576 * 2048)

    def test_sliding_window_is_noted(self):
        report = self.info(model(attention__sliding_window=(U32, 512)))
        self.assertEqual(report["sliding_window"], 512)
        self.assertIn("full context in every layer", report["notes"][0])

    def test_rows_that_can_not_be_packed_are_counted_as_f16(self):
        sizes = {"attention__key_length": (U32, 24), "attention__value_length": (U32, 24)}
        report = self.info(model(attention__head_count_kv=(U32, 1), **sizes))
        self.assertEqual(report["bytes"]["k4v4"], report["bytes"]["f16"])
        self.assertNotIn("q8_0", report["bytes"])

    def test_names_need_not_be_text(self):
        data = gguf(model()).replace(b"test", b"\xff\x1b[m")
        result = self.run_tq("info", "--json", "--model", self.file(data))
        self.assertEqual(json.loads(result.stdout)["model"]["name"], "??[m")

    # ---- broken files ----

    def test_no_file(self):
        for path, word in (
            ("/nonexistent.gguf", "no such file"),
            (self.folder.name, "not a regular file"),
            ("/dev/zero", "not a regular file"),
        ):
            result = self.run_tq("info", "--model", path)
            self.assertEqual(result.returncode, 1)
            self.assertIn(path, result.stderr)
            self.assertIn(word, result.stderr.lower())

    def test_not_gguf(self):
        self.assert_refused(b"")
        self.assert_refused(b"GGML" + bytes(100), "magic")
        self.assert_refused(gguf(model(), version=9), "version 9")

    def test_every_truncation_is_refused(self):
        data = gguf(model(), tensor_floats=16)
        for n in range(0, len(data), 7):
            self.assert_refused(data[:n])
        self.assert_refused(data[:-1], "truncated")

    def test_missing_keys(self):
        self.assert_refused(gguf([]), "general.architecture is missing")
        for key in ("block_count", "embedding_length"):
            self.assert_refused(gguf(model(**{key: None})), f"llama.{key} is missing")
        no_heads = model(attention__head_count=None, attention__head_count_kv=None)
        self.assert_refused(gguf(no_heads), "head_count is missing")

    def test_wrong_types(self):
        self.assert_refused(gguf(model(architecture=(U32, 1))), "must be a string")
        self.assert_refused(gguf(model(architecture=(ARRAY, ["llama"], STRING))), "must be a string")
        for kind in ((STRING, "4"), (F32, 4.0), (BOOL, 1), (ARRAY, [4], U32)):
            self.assert_refused(gguf(model(block_count=kind)), "llama.block_count must be an integer")
        self.assert_refused(gguf(model(attention__head_count_kv=(ARRAY, ["a"] * 4, STRING))), "must hold integers")
        self.assert_refused(gguf(model(attention__head_count_kv=(ARRAY, [2] * 3, I32))), "3 elements for 4 layers")
        self.assert_refused(gguf(model(attention__head_count_kv=(ARRAY, [], I32))), "0 elements for 4 layers")

    def test_absurd_values(self):
        for value in ((U32, 0), (U32, 2**32 - 1), (I32, -1), (U64, 2**64 - 1)):
            self.assert_refused(gguf(model(block_count=value)), "llama.block_count is", "allowed: 1 to")
        self.assert_refused(gguf(model(attention__head_count_kv=(ARRAY, [2, 2, -2, 2], I32))), "is -2")
        self.assert_refused(gguf(model(attention__head_count_kv=(U32, 0))), "no layer")
        self.assert_refused(gguf(model(attention__head_count=(U32, 0))), "does not give it")
        self.assert_refused(gguf(model(architecture=(STRING, "\x1b[2J"))), "names no architecture")

    def test_sizes_that_the_file_does_not_have(self):
        header = b"GGUF" + struct.pack("<I", 3)
        self.assert_refused(header + struct.pack("<qq", -1, 0))
        self.assert_refused(header + struct.pack("<QQ", 0, 2**40))
        self.assert_refused(header + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**62))
        one_pair = header + struct.pack("<QQ", 0, 1) + text(b"a")
        self.assert_refused(one_pair + struct.pack("<IIQ", ARRAY, U64, 2**61))

    # Flipped bits: any answer but a crash.
    def test_noise(self):
        numbers = random.Random(1)
        for _ in range(150):
            data = bytearray(gguf(model(attention__head_count_kv=(ARRAY, [2] * 4, I32)), tensor_floats=16))
            for _ in range(numbers.randrange(1, 6)):
                data[numbers.randrange(len(data))] = numbers.randrange(256)
            result = self.run_tq("info", "--json", "--model", self.file(bytes(data)))
            self.assertIn(result.returncode, (0, 1), result.stderr)


if __name__ == "__main__":
    unittest.main()
