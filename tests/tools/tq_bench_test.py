"""Runs `tq bench` ($TQ) on tiny shapes: what it reports, not how fast anything is."""
import json
import os
import subprocess
import unittest

TINY = ["--shape", "4/2/64", "--depth", "128", "--threads", "2", "--layers", "2", "--rounds", "1"]


def run_tq(*args):
    env = {k: v for k, v in os.environ.items() if not k.startswith("TURBOQUANT_")}
    return subprocess.run([os.environ["TQ"], *args], capture_output=True, text=True, timeout=120, env=env)


class TqBench(unittest.TestCase):
    def report(self, kind, *args):
        result = run_tq("bench", kind, *TINY, "--json", *args)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def results(self, report):
        return {each["name"]: each for case in report["cases"] for each in case["results"]}

    # ---- results

    def test_attention_beside_ggml(self):
        report = self.report("attention", "--preset", "k4v4,k8v8")
        self.assertRegex(report["ggml"]["version"], r"^\d+\.\d+\.\d+$")
        self.assertIsInstance(report["ggml"]["features"], list)
        case = report["cases"][0]
        self.assertEqual((case["shape"], case["depth"], case["layers"], case["threads"]), ("4/2/64", 128, 2, 2))
        self.assertGreater(case["read_gbps"]["median"], 0)
        results = self.results(report)
        self.assertEqual(list(results), ["k4v4", "k8v8", "f16", "q8_0", "q4_0"])
        self.assertEqual(results["f16"]["layer_bytes"], 2 * 2 * 128 * 128)
        self.assertEqual(results["k4v4"]["bits_per_value"], 4.1875)
        self.assertEqual([results[name]["description"] for name in ("k4v4", "f16")], ["k4v4", None])
        self.assertEqual(list(results["k4v4"]["times_faster_than"]), ["f16", "q8_0", "q4_0"])
        for each in results.values():
            self.assertEqual(len(each["samples_us"]), 1)
            self.assertGreater(each["us"]["median"], 0)
        # All of them computed the same attention.
        for name, limit in (("f16", 0), ("q8_0", 0.05), ("k8v8", 0.05), ("k4v4", 0.3), ("q4_0", 0.3)):
            self.assertLessEqual(results[name]["distance_to_f16"], limit, name)

    def test_causal_batch(self):
        results = self.results(self.report("attention", "--batch", "7", "--rival", "f16", "--preset", "k8v8"))
        self.assertLess(results["k8v8"]["distance_to_f16"], 0.05)

    def test_encode(self):
        report = self.report("encode", "--batch", "3", "--rival", "q8_0,q4_0")
        self.assertIsNone(report["cases"][0]["read_gbps"])
        results = self.results(report)
        self.assertEqual(list(results), ["k4cv4+sink1+recent15", "q8_0", "q4_0"])
        for each in results.values():
            self.assertAlmostEqual(each["us_per_row"] * 3, each["us"]["median"])

    def test_every_combination_is_a_case(self):
        report = self.report("attention", "--rival", "none", "--shape", "2/1/32", "--batch", "1,2", "--isa", "scalar")
        self.assertEqual(len(report["cases"]), 4)  # the shape of TINY and this one
        self.assertEqual({each["isa"] for each in self.results(report).values()}, {"scalar"})

    def test_line_over_four_depths(self):
        report = self.report("attention", "--rival", "none", "--preset", "k4v4", "--depth", "192,256,320")
        self.assertEqual([case["depth"] for case in report["cases"]], [128, 192, 256, 320])
        fit = report["fits"][0]
        self.assertEqual((fit["name"], fit["depths"]), ("k4v4", 4))
        for key in ("intercept_us", "us_per_1024_cells", "r2", "worst_relative_deviation"):
            self.assertIsInstance(fit[key], float)

    def test_table(self):
        result = run_tq("bench", "attention", *TINY)
        self.assertEqual(result.returncode, 0, result.stderr)
        for word in ("tq fast", "fast: k4v4 centered, sinks=1 window=15", "ggml f16", "vs q4_0", "4/2/64", "GB/s"):
            self.assertIn(word, result.stdout)

    # ---- the same result for any number of threads

    def digests(self, kind, threads):
        shape = ["--shape", "8/4/64", "--depth", "300", "--batch", "100", "--layers", "1", "--rounds", "1"]
        args = ["--rival", "none", "--preset", "k4v4,k4cv4,fast", "--threads", threads, "--json"]
        result = run_tq("bench", kind, *shape, *args)
        self.assertEqual(result.returncode, 0, result.stderr)
        return {name: each["digest"] for name, each in self.results(json.loads(result.stdout)).items()}

    def test_centered_keys_do_not_race(self):
        """A block's center depends on the block before: threads own slices over all blocks."""
        for kind in ("attention", "encode"):
            alone = self.digests(kind, "1")
            self.assertGreater(len(set(alone.values())), 1)
            for _ in range(3):
                self.assertEqual(self.digests(kind, "3"), alone, kind)

    # ---- exact cells

    def test_named_presets_are_benched_with_their_exact_cells(self):
        args = ("--depth", "2048", "--rival", "f16", "--preset", "k4cv4,fast,k4cv4+sink4+recent1600", "--batch", "7")
        results = self.results({"cases": self.report("attention", *args)["cases"][1:]})
        self.assertEqual(list(results), ["k4cv4", "k4cv4+sink1+recent15", "k4cv4+sink4+recent1600", "f16"])
        codes, fast, most = (results[name] for name in list(results)[:3])
        # 16 rows of 2 heads of 64 values for K and V are read; 12 more, the reserve, are kept.
        self.assertEqual(fast["layer_bytes"] - codes["layer_bytes"], 2 * 2 * 64 * 2 * 16)
        self.assertAlmostEqual(fast["bits_per_value"] - codes["bits_per_value"], 16 * 28 / 2048)
        self.assertLess(fast["distance_to_f16"], codes["distance_to_f16"])
        self.assertLess(most["distance_to_f16"], codes["distance_to_f16"] / 2)

    def test_exact_cells_are_stored_when_encoding(self):
        for each in self.results(self.report("encode", "--batch", "100", "--preset", "fast,tiny", "--rival", "none")).values():
            self.assertGreater(each["us"]["median"], 0)

    # ---- without ggml

    def test_without_rivals(self):
        report = self.report("attention", "--rival", "none")
        self.assertIsNone(report["ggml"])
        self.assertEqual(list(self.results(report)), ["k4cv4+sink1+recent15"])
        self.assertNotIn("distance_to_f16", self.results(report)["k4cv4+sink1+recent15"])

    def test_type_that_does_not_fit_the_shape(self):
        report = self.report("attention", "--rival", "f16,q8_0", "--shape", "2/1/80")
        case = report["cases"][1]
        self.assertEqual([each["name"] for each in case["results"]], ["k4cv4+sink1+recent15", "f16"])
        self.assertEqual(case["notes"], ["q8_0 needs head sizes that are multiples of 32"])

    # ---- usage

    def test_usage(self):
        for args, words in (
            ("--shape 32/5/128", "not a multiple of n_head_kv"),
            ("--shape 32/8", "heads/KV heads/head_dim, as in 32/8/128"),
            ("--shape 4/2/72", "a multiple of 16 in 16..512"),
            ("--shape 4/2/64x", "heads/KV heads/head_dim"),
            ("--rival q5_1", "f16, q8_0, q4_0"),
            ("--preset k9v9", "valid: k<K bits>v<V bits>"),
            ("--preset fast+0:k8v8", "differs by layer"),
            ("--isa sse9", "available: scalar"),
            ("--depth 0", "is not in 1.."),
            ("--depth 8 --batch 9", "more than the 8 cells"),
            ("--threads 0", "is not in 1.."),
            ("--rounds 0", "is not in 1.."),
            ("--layers none", "neither auto nor in 1.."),
            ("--max-seconds nan", "must not be negative"),
        ):
            result = run_tq("bench", "attention", *args.split())
            self.assertEqual((result.returncode, result.stdout), (2, ""), args)
            self.assertIn(words, result.stderr, args)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for args in ("", "nothing", "attention --depth x", "attention --unknown", "encode --json=x"):
            self.assertEqual(run_tq("bench", *args.split()).returncode, 2, args)
        self.assertEqual(run_tq("bench", "attention", "--help").returncode, 0)


if __name__ == "__main__":
    unittest.main()
