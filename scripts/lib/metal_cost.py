"""Cost of the Metal shaders: metal_cost.py 1.ll 4.ll 8.ll, the loops of bench/metal/cost.metal for so many query rows.

Units are those of one FMA of a SIMD group. Costs of other operations on Apple 7 and 8 GPUs are measurements of others
(github.com/philipturner/metal-benchmarks); what is assumed beside them stands in docs/metal.md."""
import re
import sys
from pathlib import Path

COSTS = {
    "fadd": 1, "fsub": 1, "fmul": 1, "fneg": 0, "fma": 1, "maxnum": 1, "minnum": 1, "fcmp": 1, "icmp": 1, "select": 1,
    "and": 1, "or": 1, "xor": 1, "add": 1, "sub": 1, "shl": 4, "lshr": 8, "ashr": 8, "uitofp": 4, "sitofp": 4,
    "fptoui": 4, "fptosi": 4, "floor": 4, "fdiv": 8,
    "fpext": 0, "fptrunc": 0,  # halves are operands and results of 32-bit instructions
}
SIMD_MAX, SIMD_SHUFFLE = 14.5, 28
SHARED_LOAD = 4  # up to 64 bytes that all lanes read: a cycle of the core's data path, which four SIMD groups share
WORD_LOAD = 8  # 4 bytes a lane: two cycles of it

HEAD_DIM = 128
DEVICES = {"M1": (1.31e12, 68e9), "M1 Max": (5.3e12, 400e9), "M4 Max": (8.1e12, 546e9)}  # operations, bytes a second
TRELLIS = 16  # kTrellisFlag of turboquant/metal/params.h
CODES = [2, 3, 4, 5, 6, 7, 8, TRELLIS + 3, TRELLIS + 4, TRELLIS + 5]
FUNCTION = re.compile(r"^define [^\n]*?(cost_[a-z]+?)(?:ILi(\d+)E)?E[^\n]*\{\n(.*?)^\}", re.S | re.M)
INSTRUCTION = re.compile(r"\s+(?:%\S+ = )?(?:tail |notail )?(\w+)(.*)")


def count(body: str) -> tuple[float, int, int]:
    """Units of arithmetic, loads that all lanes share, and loads of a word a lane."""
    units, shared, words = 0.0, 0, 0
    for line in body.split("\n"):
        found = INSTRUCTION.match(line)
        if not found:
            continue
        name, rest = found[1], found[2]
        width = int((re.search(r"<(\d+) x", rest) or [0, 1])[1])
        if name == "call":
            name = (re.search(r"@llvm\.(\w+)", rest) or [0, ""])[1]
        if name == "load":
            shared += "<4 x i32>" in rest
            words += bool(re.match(r" i(8|32)[, ]", rest))
        if " i64 " in f"{rest} " or re.search(r"lshr .*, 16$", line):
            continue  # addresses; the upper half of a register is a register
        units += COSTS.get(name, 0) * width
    return units, shared, words


def counts(path: str) -> dict[str, tuple[float, int, int]]:
    return {name + (bits or ""): count(body) for name, bits, body in FUNCTION.findall(Path(path).read_text())}


def digits_of(codes: int) -> int:
    return 2 if codes % TRELLIS >= 6 else 1


def name_of(codes: int) -> str:
    return f"{codes % TRELLIS}{'t' if codes >= TRELLIS else ''}"


class Cost:
    """Units a value for a number of query rows, by the shaders' loops. Values: a key value and a value value together
    are two."""

    def __init__(self, table: dict[str, tuple[float, int, int]], rows: int):
        self.table, self.rows = table, rows

    def arithmetic(self, loop: str, values: int) -> float:
        return self.table[loop][0] / values

    def loads(self, loop: str, values: int) -> float:
        _, shared, words = self.table[loop]
        return (shared * SHARED_LOAD + words * WORD_LOAD) / values

    def keys(self, codes: int) -> tuple[float, float]:
        return (self.arithmetic(f"cost_keys{codes}", 32) + self.arithmetic("cost_scales", 64),
                self.loads(f"cost_keys{codes}", 32))

    def values(self, codes: int) -> tuple[float, float]:
        loop = f"cost_values{codes}"
        return self.arithmetic(loop, 64), self.loads(loop, 64)

    def softmax(self, value_codes: int) -> float:
        """Of two cells a lane, which stand for 2 * HEAD_DIM key values and as many value values."""
        digits = digits_of(value_codes)
        groups = HEAD_DIM // 64
        exchange = self.rows * (SIMD_MAX * (1 + groups) + SIMD_SHUFFLE)
        return (self.table["cost_softmax"][0] + groups * self.table[f"cost_weights{digits}"][0] + exchange) / (4 * HEAD_DIM)

    def average(self, codes: int) -> tuple[float, float]:
        keys, values = self.keys(codes), self.values(codes)
        return (keys[0] + values[0]) / 2 + self.softmax(codes), (keys[1] + values[1]) / 2


def print_units(costs: list[Cost]) -> None:
    print(f"Units a value, head_dim {HEAD_DIM}: arithmetic + loads from memory that is shared by lanes or packed\n")
    print("| bits | rows | a key value | a value value | softmax, both | average |")
    print("|---|---|---|---|---|---|")
    for codes in CODES:
        for cost in costs:
            cells = [f"{a:.1f} + {b:.1f}" for a, b in (cost.keys(codes), cost.values(codes))]
            average = cost.average(codes)
            print(f"| {name_of(codes)} | {cost.rows} | {cells[0]} | {cells[1]} | {cost.softmax(codes):.1f} | "
                  f"{average[0]:.1f} + {average[1]:.1f} |")


def bytes_of_value(bits: int) -> float:
    return (2 * bits + 8 / 32 + 8 / 64) / 16


def print_rates(costs: list[Cost]) -> None:
    print("\nValues a second (10^9): f16 at 80 % of bandwidth; packed at 80 % of bandwidth, or 70 % of arithmetic\n")
    print("| device | f16 | bits | rows | by bandwidth | by arithmetic | with loads | packed / f16 |")
    print("|---|---|---|---|---|---|---|---|")
    for device, (operations, bandwidth) in DEVICES.items():
        half = 0.8 * bandwidth / 2
        for codes in (3, 4, 8, TRELLIS + 4):
            for cost in costs:
                arithmetic, loads = cost.average(codes)
                by_bytes = 0.8 * bandwidth / bytes_of_value(codes % TRELLIS)
                by_units = 0.7 * operations / arithmetic
                with_loads = 0.7 * operations / (arithmetic + loads)
                ratios = [min(by_bytes, limit) / half for limit in (with_loads, by_units)]
                print(f"| {device} | {half / 1e9:.0f} | {name_of(codes)} | {cost.rows} | {by_bytes / 1e9:.0f} | {by_units / 1e9:.0f} | "
                      f"{with_loads / 1e9:.0f} | {ratios[0]:.1f} to {ratios[1]:.1f} |")


def main() -> None:
    costs = [Cost(counts(path), int(Path(path).stem)) for path in sys.argv[1:]]
    print_units(costs)
    print_rates(costs)


if __name__ == "__main__":
    main()
