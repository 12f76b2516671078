"""What scripts/demo says about rounds of measurements (scripts/lib/table), on made-up ones; and scripts/lib/measure."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

LIB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "lib")
LOG = "llama_context: constructing llama_context\n {:>10} KV buffer size = {:8.2f} MiB\nllama_kv_cache: size = ( 2560 cells)\n"
DEPTH = 2048


def runs(prefill, decode, prefill_deep, decode_deep):
    tests = ((512, 0, 0, prefill), (0, 32, 0, decode), (512, 0, DEPTH, prefill_deep), (0, 32, DEPTH, decode_deep))
    return [{"n_prompt": p, "n_gen": n, "n_depth": d, "avg_ts": speed} for p, n, d, speed in tests]


class DemoTable(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def write(self, name, mib, rounds, others=0.01):
        """rounds: decode's tokens/s in each."""
        for number, speed in enumerate(rounds, 1):
            machine = {"cores": 2, "others_cores": others, "load_before": 0.5, "load_after": 1.5, "seconds": 1}
            with open(f"{self.folder.name}/bench-{name}.{number}.json", "w", encoding="utf-8") as file:
                json.dump({"machine": machine, "runs": runs(3 * speed, speed, speed, speed / 2)}, file)
        with open(f"{self.folder.name}/bench-{name}.1.log", "w", encoding="utf-8") as file:
            file.write(LOG.format(name, mib))

    def table(self, *options, n_rounds=3):
        names = ["--", "f16=f16", "turboquant=TurboQuant fast"]
        command = [sys.executable, os.path.join(LIB, "table"), self.folder.name, str(DEPTH), str(n_rounds), *options, *names]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def test_median_and_spread_of_rounds(self):
        self.write("f16", 100, [50, 48, 52])
        self.write("turboquant", 25, [101, 96, 104])
        report = json.loads(self.table("--json", "model=m"))
        f16, ours = report["rows"]
        self.assertEqual(f16["decode_tps"], {"median": 50, "min": 48, "max": 52, "rounds": [50, 48, 52]})
        self.assertEqual((ours["bits_per_value"], report["model"], report["depth"]), (4, "m", DEPTH))
        self.assertEqual(report["doubts"], [])
        self.assertNotIn("TOO BUSY", self.table())
        self.assertIn("50.0 (48.0-52.0)", self.table())

    def test_a_load_that_comes_and_goes_does_not_make_the_table_lie(self):
        """Both have a slow round: the ratio of each round is that of the quiet machine, and the doubt is said."""
        self.write("f16", 100, [100, 10, 100], others=0.9)
        self.write("turboquant", 25, [200, 20, 200], others=0.9)
        report = json.loads(self.table("--json"))
        self.assertEqual(report["rows"][1]["decode_of_f16"]["rounds"], [2, 2, 2])
        self.assertTrue(any("other processes took up to 0.90 of 2 cores" in doubt for doubt in report["doubts"]))
        self.assertTrue(any("rounds differ by 90 %" in doubt for doubt in report["doubts"]))
        self.assertIn("TOO BUSY", self.table())

    def test_a_system_that_does_not_say_is_a_doubt(self):
        for name in ("f16", "turboquant"):
            self.write(name, 100, [50, 50, 50], others=None)
        self.assertIn("does not say what other processes took", self.table())

    def measure(self, code):
        out = os.path.join(self.folder.name, "out.json")
        command = [sys.executable, os.path.join(LIB, "measure"), out, sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=False), out

    def test_measure_keeps_what_the_command_printed(self):
        done, out = self.measure("print('[{\"n_gen\": 32}]')")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(out, encoding="utf-8") as file:
            result = json.load(file)
        self.assertEqual(result["runs"], [{"n_gen": 32}])
        self.assertLessEqual({"cores", "others_cores", "load_before", "load_after", "seconds"}, set(result["machine"]))

    def test_measure_fails_with_its_command(self):
        done, out = self.measure("import sys; sys.exit(3)")
        self.assertEqual((done.returncode, os.path.exists(out)), (1, False))
        self.assertIn("ended with status 3", done.stderr)


if __name__ == "__main__":
    unittest.main()
