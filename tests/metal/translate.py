#!/usr/bin/env python3
"""Preprocessed Metal text on stdin becomes C++ on stdout: translate.py LIBRARY [--opencl | --cuda].

What C++ has no words for is replaced, and nothing else: pragmas of contraction, function constants, threadgroup variables, attributes of kernel
parameters (they become a table of slots), and instantiations with a host_name (they become entries of the library). With --opencl the
result is C++ for OpenCL, to be compiled and not run: tables are left out. With --cuda it is CUDA as Clang compiles it for an NVIDIA GPU (nvidia/):
an entry is a kernel of the instance's host_name, and threadgroup variables are shared ones."""
import re
import sys

INPUTS = (
    "thread_position_in_grid thread_position_in_threadgroup threadgroup_position_in_grid threads_per_grid "
    "threads_per_threadgroup dispatch_threads_per_threadgroup threadgroups_per_grid thread_index_in_threadgroup "
    "thread_index_in_simdgroup simdgroup_index_in_threadgroup threads_per_simdgroup thread_execution_width "
    "simdgroups_per_threadgroup"
).split()
CONSTANT = re.compile(r"\bconstant\s+(\w+)\s+(\w+)\s*\[\[\s*function_constant\s*\(\s*(\d+)\s*\)\s*\]\]\s*;")
INSTANCE = re.compile(
    r"\btemplate\s*((?:\[\[[^\]]*\]\]\s*)+)(?:kernel\s+)?decltype\s*\(([^;]*?)\)\s*([^;]*?);", re.S)
KERNEL = re.compile(r"((?:\[\[(?:[^\[\]]|\[[^\]]*\])*?\]\]\s*)*)(?:\bkernel\b|\[\[\s*kernel\s*\]\])((?:\s*\[\[[^\]]*\]\])*)\s+void\s+(\w+)\s*\(")
VARIABLE = re.compile(r"(?<=[;{}\n])(\s*)threadgroup\s+([^;{}=*&]*?)\b(\w+)\s*((?:\[[^;{}]*?\]\s*)*);")


class Problem(Exception):
    pass


def closing(text: str, opened: int) -> int:
    """The index of what closes the bracket at `opened`."""
    pairs = {"(": ")", "{": "}", "[": "]"}
    open_one, close_one = text[opened], pairs[text[opened]]
    depth, i = 0, opened
    while i < len(text):
        c = text[i]
        if c in "\"'":
            quote = c
            i += 1
            while text[i] != quote:
                i += 2 if text[i] == "\\" else 1
        elif c == open_one:
            depth += 1
        elif c == close_one:
            depth -= 1
            if depth == 0:
                return i
        i += 1
    raise Problem(f"{open_one} is never closed: {text[opened:opened + 60]!r}")


def split_at_commas(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in "([{<":
            depth += 1
        elif c in ")]}>":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [p for p in parts + [text[start:]] if p.strip()]


class Library:
    def __init__(self, name: str, language: str):
        self.name = name
        self.opencl = language == "--opencl"
        self.cuda = language == "--cuda"
        self.constants: list[tuple[int, str, str]] = []  # index, type, name
        self.slots: dict[str, int] = {}  # kernel function -> number of slots
        self.arguments: dict[str, str] = {}  # kernel function -> where each slot's argument is, in CUDA
        self.limits: dict[str, str] = {}
        self.instances = 0
        self.variables = 0

    def constant(self, match: re.Match) -> str:
        kind, name, index = match[1], match[2], int(match[3])
        self.constants.append((index, kind, name))
        if self.opencl:
            return f"constant {kind} {name} = {kind}(1);" + "\n" * match[0].count("\n")
        value, defined = self.constant_symbols(name)
        return (f'extern "C" {{ {kind} {value}; bool {defined}; }} static const {kind}& {name} = {value};'
                + "\n" * match[0].count("\n"))

    def constant_symbols(self, name: str) -> tuple[str, str]:
        return f"msl_constant_{self.name}_{name}", f"msl_defined_{self.name}_{name}"

    def slot(self, kernel: str, parameter: str) -> tuple[str, str, str]:
        """The slot's initializer, the parameter without its attributes, and where CUDA has the argument."""
        attributes = re.findall(r"\[\[(.*?)\]\]", parameter, re.S)
        bare = re.sub(r"\[\[.*?\]\]", "", parameter, flags=re.S)
        name = re.search(r"(\w+)\s*(?:\[\s*\])?\s*$", bare)
        if name is None:
            raise Problem(f"kernel {kernel}: a parameter without a name: {parameter.strip()!r}")
        kind, argument, only_where = None, "", "nullptr"
        for attribute in split_at_commas(",".join(attributes)):
            indexed = re.fullmatch(r"\s*(buffer|threadgroup|function_constant)\s*\(\s*(\w+)\s*\)\s*", attribute)
            if indexed and indexed[1] == "function_constant":
                only_where = f"&{indexed[2]}"
            elif indexed:
                kind, argument = f"MSL_{indexed[1].upper()}, {indexed[2]}", f"buffers.at[{indexed[2]}]"
            elif attribute.strip() in INPUTS:
                kind = f"MSL_INPUT, MSL_{attribute.strip().upper()}"
                argument = f"inputs.at[MSL_{attribute.strip().upper()}]"
            else:
                raise Problem(f"kernel {kernel}: unknown attribute {attribute.strip()!r} of {name[1]}")
        if kind is None:
            raise Problem(f"kernel {kernel}: the parameter {name[1]} has no [[buffer(n)]], [[threadgroup(n)]] or input attribute")
        return f'{{{kind}, "{name[1]}", {only_where}}}', bare, argument

    def entry(self, host_name: str, base: str, function: str) -> str:
        if base not in self.slots:
            raise Problem(f"{host_name!r} is an instance of {base}, which is no kernel")
        self.instances += 1
        if self.opencl:
            return f"template decltype({function}) {function};" if "<" in function else ""
        if self.cuda:
            return (f'_Pragma("clang force_cuda_host_device end") extern "C" __attribute__((__global__)) '
                    f"void {host_name}(msl::buffers buffers) {{ const msl::inputs inputs; "
                    f"const void* const arguments[] = {{{self.arguments[base]}}}; "
                    f"msl::call_kernel<decltype(&{function}), &{function}>(arguments); }} "
                    f'_Pragma("clang force_cuda_host_device begin")')
        slots = f"msl_slots_{self.name}_{base}"
        return (f'extern "C" {{ extern const msl_kernel msl_kernel_{self.name}_{self.instances}; '
                f"const msl_kernel msl_kernel_{self.name}_{self.instances} = "
                f'{{"{host_name}", {slots}, {self.slots[base]}, {self.limits[base]}, '
                f"&msl::call_kernel<decltype(&{function}), &{function}>}}; "
                f"static_assert(msl::parameter_count(decltype(&{function})(nullptr)) == {self.slots[base]}, "
                f'"{base}: all parameters have slots"); }}')

    def instance(self, match: re.Match) -> str:
        host_name = re.search(r'host_name\s*\(\s*((?:"[^"]*"\s*)+)\)', match[1])
        if host_name is None:
            raise Problem(f"an instance without host_name: {match[0]!r}")
        function = " ".join(match[2].split())
        if function.replace(" ", "") != "".join(match[3].split()):
            raise Problem(f"decltype({function}) is not what is instantiated: {match[3]!r}")
        name = "".join(re.findall(r'"([^"]*)"', host_name[1]))
        return self.entry(name, re.match(r"(?:\w+::)*(\w+)", function)[1], function) + "\n" * match[0].count("\n")

    def kernels(self, text: str) -> str:
        out, at = [], 0
        while match := KERNEL.search(text, at):
            name = match[3]
            if name in self.slots:
                raise Problem(f"two kernels are called {name}: their parameters could not be told apart")
            opened = match.end() - 1
            closed = closing(text, opened)
            brace = text.find("{", closed)
            end = closing(text, brace)
            limit = re.search(r"max_total_threads_per_threadgroup\s*\(\s*(\w+)\s*\)", match[1] + match[2] + text[closed:brace])
            self.limits[name] = limit[1] if limit else "0"
            before = text[at:match.start()]
            # A template's kernel is called by its instances' names, another one by its own.
            head = re.search(r"\btemplate\s*<(?:[^<>]|<[^<>]*>)*>\s*$", before)
            slots, parameters, arguments = zip(*(self.slot(name, p) for p in split_at_commas(text[opened + 1:closed])))
            self.slots[name] = len(slots)
            self.arguments[name] = ", ".join(arguments)
            table = f"static const msl_slot msl_slots_{self.name}_{name}[] = {{{', '.join(slots)}}}; "
            start = head.start() if head else len(before)
            body = VARIABLE.sub(self.variable, text[brace:end + 1])
            if self.opencl or self.cuda:
                table = ""
            out += [before[:start], table, before[start:], f"static void {name}({','.join(parameters)}) ", body]
            if not head:
                host_name = re.search(r'host_name\s*\(\s*"([^"]*)"\s*\)', match[1] + match[2])
                out.append(" " + self.entry(host_name[1] if host_name else name, name, name))
            at = end + 1
        return "".join(out) + text[at:]

    def variable(self, match: re.Match) -> str:
        self.variables += 1
        kind = re.sub(r"alignas\s*\([^)]*\)", "", match[2]).strip()
        if self.opencl:
            return f"{match[1]}threadgroup auto& {match[3]} = msl::threadgroup_variable<{kind}{match[4]}>();"
        if self.cuda:
            return f"{match[1]}__attribute__((__shared__)) {kind} {match[3]}{match[4]};"
        return (f"{match[1]}auto& {match[3]} = msl::threadgroup_variable<{kind}{match[4]}>"
                f'("{match[3]}", reinterpret_cast<const void*>({self.variables}));')

    def tables(self) -> str:
        lines = ['extern "C" {']
        constants = []
        for index, kind, name in self.constants:
            value, defined = self.constant_symbols(name)
            lines.append(f"extern {kind} {value}; extern bool {defined};")
            constants.append(f'{{{index}, "{name}", &{value}, sizeof({value}), &{defined}}},')
        if constants:
            lines.append(f"static const msl_constant msl_constants_{self.name}[] = {{{' '.join(constants)}}};")
        for i in range(1, self.instances + 1):
            lines.append(f"extern const msl_kernel msl_kernel_{self.name}_{i};")
        kernels = " ".join(f"&msl_kernel_{self.name}_{i}," for i in range(1, self.instances + 1))
        lines += [
            f"static const msl_kernel* const msl_kernels_{self.name}[] = {{{kernels}}};",
            f"extern const msl_library msl_library_{self.name};",
            f"const msl_library msl_library_{self.name} = {{msl_kernels_{self.name}, {self.instances}, "
            f"{f'msl_constants_{self.name}' if constants else 'nullptr'}, {len(constants)}}};",
            "}",
        ]
        return "\n".join(lines) + "\n"


def translate(text: str, library_name: str, language: str) -> str:
    library = Library(library_name, language)
    text = CONSTANT.sub(library.constant, text)
    text = re.sub(r"\bis_function_constant_defined\s*\(\s*(\w+)\s*\)",
                  lambda m: "msl::is_defined()" if library.opencl else library.constant_symbols(m[1])[1], text)
    # Metal contracts products and sums unless it is told not to, and so is Clang told here.
    text = re.sub(r"#\s*pragma\s+METAL\s+fp\s+contract", "#pragma clang fp contract", text)
    text = re.sub(r"\[\[\s*kernel\s*,", "[[kernel]] [[", text)
    text = library.kernels(text)
    text = INSTANCE.sub(library.instance, text)
    if rest := re.search(r"\bkernel\b.*", re.sub(r'"[^"]*"', '""', text)):
        raise Problem(f"neither a kernel's definition nor an instance `template [[host_name(..)]] [[kernel]] decltype(f<..>) f<..>;`: {rest[0]!r}")
    if not library.instances:
        raise Problem("there is no kernel")
    if library.opencl or library.cuda:
        return text
    return text + '\n#line 1 "tables"\n' + library.tables()


def main() -> None:
    try:
        sys.stdout.write(translate(sys.stdin.read(), sys.argv[1], "".join(sys.argv[2:])))
    except Problem as problem:
        sys.exit(f"translate.py: {sys.argv[1]}: {problem}")


if __name__ == "__main__":
    main()
