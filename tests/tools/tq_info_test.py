"""Runs `tq info` ($TQ) on GGUF files made here: right ones, odd ones, broken ones."""
import json
import math
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


def gguf(pairs, tensors=(), version=3):
    """The bytes of a file with these metadata and f32 tensors [(name, shape)], all zeros."""
    data = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    data += b"".join(pair(*p) for p in pairs)
    offset = 0
    for name, shape in tensors:
        data += text(name.encode()) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        offset += -(-4 * math.prod(shape) // 32) * 32
    return data + bytes(-len(data) % 32 + offset)


N_EMBD, N_FF, N_VOCAB, N_HEAD, N_HEAD_KV, HEAD = 64, 96, 32, 4, 2, 64
ROW = N_HEAD_KV * HEAD


def metadata(architecture, n_layer, **changes):
    """Small, with KV rows of 128 values. None removes a key."""
    pairs = {
        "general.architecture": (STRING, architecture),
        "general.name": (STRING, "test"),
        "tokenizer.ggml.model": (STRING, "no_vocab"),
        "vocab_size": (U32, N_VOCAB),
        "block_count": (U32, n_layer),
        "context_length": (U32, 2048),
        "embedding_length": (U32, N_EMBD),
        "feed_forward_length": (U32, N_FF),
        "attention.head_count": (U32, N_HEAD),
        "attention.head_count_kv": (U32, N_HEAD_KV),
        "attention.key_length": (U32, HEAD),
        "attention.value_length": (U32, HEAD),
        "attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "rope.dimension_count": (U32, HEAD),
    }
    pairs.update({name.replace("__", "."): value for name, value in changes.items()})
    named = {key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}": value for key, value in pairs.items()}
    return [(key, *value) for key, value in named.items() if value is not None]


def ffn(layer):
    return [(f"blk.{layer}.ffn_norm.weight", (N_EMBD,)), (f"blk.{layer}.ffn_gate.weight", (N_EMBD, N_FF)),
            (f"blk.{layer}.ffn_up.weight", (N_EMBD, N_FF)), (f"blk.{layer}.ffn_down.weight", (N_FF, N_EMBD))]


def attention(layer, n_head=N_HEAD, n_head_kv=N_HEAD_KV, head=HEAD):
    q, kv = n_head * head, n_head_kv * head
    return [(f"blk.{layer}.attn_norm.weight", (N_EMBD,)), (f"blk.{layer}.attn_q.weight", (N_EMBD, q)),
            (f"blk.{layer}.attn_k.weight", (N_EMBD, kv)), (f"blk.{layer}.attn_v.weight", (N_EMBD, kv)),
            (f"blk.{layer}.attn_output.weight", (q, N_EMBD))]


def norms(layer, names, n):
    return [(f"blk.{layer}.{name}.weight", (n,)) for name in names]


def llama(n_layer=4, head=HEAD, **changes):
    tensors = [("token_embd.weight", (N_EMBD, N_VOCAB)), ("output_norm.weight", (N_EMBD,))]
    for layer in range(n_layer):
        tensors += attention(layer, head=head) + ffn(layer)
    if head != HEAD:
        changes |= {"attention__key_length": (U32, head), "attention__value_length": (U32, head), "rope__dimension_count": (U32, head)}
    return metadata("llama", n_layer, **changes), tensors


def gemma3(window):
    """Six layers: five with a sliding window, then one without."""
    tensors = [("token_embd.weight", (N_EMBD, N_VOCAB)), ("output_norm.weight", (N_EMBD,))]
    for layer in range(6):
        tensors += attention(layer) + ffn(layer) + norms(layer, ("post_attention_norm", "post_ffw_norm"), N_EMBD)
        tensors += norms(layer, ("attn_q_norm", "attn_k_norm"), HEAD)
    return metadata("gemma3", 6, attention__sliding_window=(U32, window)), tensors


def lfm2():
    """Two layers of attention between two of short convolutions, which keep a state of their own."""
    tensors = [("token_embd.weight", (N_EMBD, N_VOCAB)), ("token_embd_norm.weight", (N_EMBD,))]
    heads, head = [0, 2, 0, 2], N_EMBD // N_HEAD
    for layer in range(4):
        tensors += ffn(layer)
        if heads[layer]:
            tensors += attention(layer, head=head) + norms(layer, ("attn_q_norm", "attn_k_norm"), head)
        else:
            conv = (("conv", (3, N_EMBD)), ("in_proj", (N_EMBD, 3 * N_EMBD)), ("out_proj", (N_EMBD, N_EMBD)))
            tensors += norms(layer, ("attn_norm",), N_EMBD)
            tensors += [(f"blk.{layer}.shortconv.{name}.weight", shape) for name, shape in conv]
    changes = {"attention__head_count_kv": (ARRAY, heads, I32), "shortconv__l_cache": (U32, 3)}
    changes |= {name: (U32, head) for name in ("attention__key_length", "attention__value_length", "rope__dimension_count")}
    return metadata("lfm2", 4, **changes), tensors


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

    def info(self, model, *args):
        result = self.run_tq("info", "--json", "--model", self.file(gguf(*model)), *args)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        report = json.loads(result.stdout)["model"]
        report["bytes"] = {cost["type"]: cost["bytes"] for cost in report["kv_cache"]}
        report["bits"] = {cost["type"]: cost["bits_per_value"] for cost in report["kv_cache"]}
        return report

    def assert_refused(self, data):
        path = self.file(data)
        result = self.run_tq("info", "--json", "--model", path)
        self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
        self.assertIn(path, result.stderr)

    # ---- without a model ----

    def test_isa_and_presets(self):
        report = json.loads(self.run_tq("info", "--json").stdout)
        self.assertEqual(report["isa"]["selected"], report["isa"]["available"][-1])
        k4v4 = next(p for p in report["presets"] if p["name"] == "k4v4")
        fast = next(p for p in report["presets"] if p["alias"] == "fast")
        self.assertEqual((fast["name"], fast["exact_cells"]), ("k4cv4+sink1+recent15", 16))
        self.assertEqual((fast["description"], k4v4["description"]), ("k4v4 centered, sinks=1 window=15", "k4v4"))
        self.assertEqual((k4v4["key_bits"], k4v4["value_bits"], k4v4["mean_bits"]), (4.25, 4.125, 4.1875))
        self.assertEqual((k4v4["default"], fast["default"]), (False, True))

    def test_text_has_names_first_and_what_they_mean(self):
        lines = self.run_tq("info").stdout.splitlines()
        self.assertIn("  fast       4.316   4.125   4.221  k4v4 centered, sinks=1 window=15, the default", lines)
        self.assertIn("  k4v4       4.250   4.125   4.188", lines)
        one = self.run_tq("info", "--preset", "k4ctv3+sink4+0:k8cv8").stdout
        self.assertIn("  k4 centered trellis, v3, sinks=4; layer 0: k8v8 centered\n", one)
        self.assertIn("\n  fast     ", self.run_tq("info", "--preset", "k4cv4+sink1+recent15").stdout)

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
        report = self.info(llama())
        values = 2 * 4 * ROW * 2048
        self.assertEqual((report["n_cells"], report["n_values"], report["fixed_bytes"]), (2048, values, 0))
        sizes = [report["bytes"][name] for name in ("f16", "q8_0", "q4_0")]
        self.assertEqual(sizes, [2 * values, values * 34 // 32, values * 18 // 32])
        for k, v in ((4, 4), (4, 3), (2, 2), (8, 8)):
            self.assertEqual(report["bytes"][f"k{k}v{v}"], preset_bytes(k, v, [(ROW, ROW)] * 4, 2048))
        self.assertEqual((report["architecture"], report["name"], report["n_layer"]), ("llama", "test", 4))

    def test_exact_cells_are_counted(self):
        report = self.info(llama(), "--preset", "k4v4+sink4+recent60")
        # 2048 cells have 12 rows in reserve; layers, K and V, cells, values, bytes
        exact = 4 * 2 * (64 + 12) * ROW * 2
        self.assertEqual(report["bytes"]["k4v4+sink4+recent60"], preset_bytes(4, 4, [(ROW, ROW)] * 4, 2048) + exact)

    def test_context_is_padded_as_in_llama_cpp(self):
        report = self.info(llama(), "--ctx", "257", "--preset", "3.5")
        self.assertEqual(report["n_cells"], 512)
        self.assertEqual(list(report["bytes"]), ["f16", "q8_0", "q4_0", "k3v4"])
        self.assertEqual(report["bytes"]["k3v4"], preset_bytes(3, 4, [(ROW, ROW)] * 4, 512))

    def test_layers_with_a_sliding_window_are_not_counted_whole(self):
        report = self.info(gemma3(100))
        cells = [768] * 5 + [2048]   # the window and a micro-batch of 512, padded to 256
        self.assertEqual((report["sliding_window"], report["n_values"]), (100, sum(2 * ROW * n for n in cells)))
        self.assertEqual(report["bytes"]["f16"], sum(2 * 2 * ROW * n for n in cells))
        self.assertEqual(report["bytes"]["k4v4"], sum(preset_bytes(4, 4, [(ROW, ROW)], n) for n in cells))
        self.assertAlmostEqual(report["bits"]["k4v4"], 4.1875)

    def test_states_of_a_hybrid_model_are_told_apart(self):
        report = self.info(lfm2())
        row = 2 * N_EMBD // N_HEAD
        state = 2 * 2 * N_EMBD * 4   # layers, columns but the newest, f32
        self.assertEqual((report["n_values"], report["fixed_bytes"]), (2 * 2 * row * 2048, state))
        self.assertEqual(report["bytes"]["f16"], 2 * report["n_values"] + state)
        self.assertEqual(report["bytes"]["k4v4"], preset_bytes(4, 4, [(row, row)] * 2, 2048) + state)
        self.assertEqual(report["bits"]["f16"], 16)
        self.assertTrue(any("recurrent" in note for note in report["notes"]))

    def test_types_that_llama_cpp_refuses_are_left_out_with_its_words(self):
        report = self.info(llama(head=24), "--preset", "k4v4")
        self.assertNotIn("q8_0", report["bytes"])
        self.assertTrue(any(note.startswith("q8_0: llama.cpp can't") for note in report["notes"]), report["notes"])

    def test_names_need_not_be_text(self):
        data = gguf(*llama()).replace(struct.pack("<Q", 4) + b"test", struct.pack("<Q", 4) + b"\xff\x1b[m")
        result = self.run_tq("info", "--json", "--model", self.file(data))
        self.assertTrue(json.loads(result.stdout)["model"]["name"].endswith("[m"))

    # ---- broken files ----

    def test_no_file(self):
        for path in ("/nonexistent.gguf", self.folder.name, "/dev/zero"):
            result = self.run_tq("info", "--model", path)
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"{path}: no such file, or not a regular one", result.stderr)

    def test_not_a_model(self):
        for data in (b"", b"GGML" + bytes(100), gguf(*llama(), version=9), gguf([]), gguf(metadata("nothing", 4))):
            self.assert_refused(data)

    def test_truncated(self):
        data = gguf(*llama())
        for n in (10, 100, 1000, len(data) // 2, len(data) - 1):
            self.assert_refused(data[:n])

    def test_missing_tensors(self):
        pairs, tensors = llama()
        self.assert_refused(gguf(pairs, tensors[:-1]))

    def test_absurd_values(self):
        for value in ((U32, 0), (U32, 2**32 - 1), (I32, -1), (STRING, "4")):
            self.assert_refused(gguf(*llama(block_count=value)))

    def test_damaged_model_does_not_end_other_commands_either(self):
        """llama.cpp aborts on this one."""
        model = self.file(gguf(*llama(block_count=(U32, 0))))
        prose = os.path.join(self.folder.name, "text")
        with open(prose, "w", encoding="utf-8") as out:
            out.write("one two three " * 500)
        out = ["-o", os.path.join(self.folder.name, "out")]
        for command in (["eval"], ["recommend"], ["calibrate", *out], ["distortion"], ["dump", *out]):
            result = self.run_tq(*command, "-m", model, "-f", prose)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(f"{model}: llama.cpp died of signal 6", result.stderr)

    # Flipped bits: any answer but a crash.
    def test_noise(self):
        numbers = random.Random(1)
        whole = gguf(*llama())
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(numbers.randrange(1, 6)):
                data[numbers.randrange(4000)] = numbers.randrange(256)
            result = self.run_tq("info", "--json", "--model", self.file(bytes(data)))
            self.assertIn(result.returncode, (0, 1), result.stderr)


if __name__ == "__main__":
    unittest.main()
