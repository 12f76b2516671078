#!/usr/bin/env python3
"""Checks Metal text in a second way: rules.py CLANG TRANSLATED, where translate.sh wrote TRANSLATED.

Clang compiles it as C++14, and as C++ for OpenCL, whose address spaces are part of types as Metal's are. What that language allows and
Metal does not is looked for in Clang's syntax tree, and in the preprocessed text. Prints file:line: what is wrong."""
import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPACES = re.compile(r"\b__(global|local|private|constant)\b")
FORBIDDEN_WORDS = {
    "double": "there is no double", "virtual": "no virtual functions", "goto": "no goto", "new": "no new",
    "delete": "no delete", "throw": "no exceptions", "try": "no exceptions", "catch": "no exceptions",
    "dynamic_cast": "no dynamic_cast", "typeid": "no typeid", "thread_local": "no thread_local", "asm": "no asm",
}
FLOAT = re.compile(r"(?<![\w.])(?:0[xX][\da-fA-F.]+[pP][+-]?\d+|\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(\w*)")
MARKER = re.compile(r'#\s*(?:line\s+)?(\d+)\s+"([^"]*)"')
CPP_ENTRY = re.compile(r'^\s*extern "C" \{ extern const msl_kernel .*$', re.M)
ONE_INSTANCE = re.compile(r"template decltype\(((?:\w+::)*\w+).*?\).*?;", re.S)


def words(text: str) -> list[str]:
    """What the preprocessed text says that no Metal text may."""
    found, file, line = [], "", 0
    for raw in text.splitlines():
        marker = MARKER.match(raw)
        if marker:
            line, file = int(marker[1]), marker[2]
            continue
        code = re.sub(r'"(?:[^"\\]|\\.)*"', '""', raw)
        if not code.lstrip().startswith("#"):
            found += [f"{file}:{line}: {why}: {word}" for word, why in FORBIDDEN_WORDS.items()
                      if re.search(rf"\b{word}\b(?!\s*;\s*$)" if word == "delete" else rf"\b{word}\b", code)]
            found += [f"{file}:{line}: a literal without f or h would be a double: {literal[0]}"
                      for literal in FLOAT.finditer(code) if literal[1].lower() not in ("f", "h")]
        line += 1
    return found


class Tree:
    """Walks Clang's syntax tree, which names file and line where they change."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.file: str | None = None
        self.line = 0
        self.function: str | None = None  # id of the one that is walked
        self.in_template = False
        self.calls: dict[str, set[str]] = {}
        self.names: dict[str, str] = {}
        self.same: dict[str, str] = {}  # a function's declarations -> the first

    def report(self, text: str) -> None:
        finding = f"{self.file}:{self.line}: {text}"
        if finding not in self.found:
            self.found.append(finding)

    def locate(self, where: dict) -> None:
        for place in (where.get("spellingLoc"), where.get("expansionLoc"), where):
            if not place or "offset" not in place:
                continue
            if "file" in place or "presumedFile" in place:
                self.file = place.get("presumedFile")  # text has #line, the shim has not
            self.line = place.get("presumedLine", place.get("line", self.line))

    def pointers(self, node: dict, type_text: str) -> None:
        """Whether each thing that is pointed to has an address space."""
        type_text = re.sub(r"\[[^\]]*\]", "[]", type_text)  # where * is a product
        while (shorter := re.sub(r"<[^<>]*>", "", type_text)) != type_text:
            type_text = shorter
        parts = re.split(r"[*&]+", re.sub(r"\(.*", "", type_text) if "(*" not in type_text and "(&" not in type_text else type_text)
        for pointed in parts[:-1]:
            if not SPACES.search(pointed):
                self.report(f"a pointer or reference without an address space: {node.get('name', node['kind'])}, {type_text!r}")
                return

    def visit(self, node: dict, implicit: bool = False) -> None:
        if not node.get("kind"):
            return
        kind = node["kind"]
        implicit = implicit or node.get("isImplicit", False)  # what nobody wrote, with all that is in it
        for key in ("loc", "range"):
            where = node.get(key, {})
            if key == "loc":
                self.locate(where)
                line_of_name = self.file, self.line
            else:
                self.locate(where.get("begin", {}))
                begin = self.file, self.line
                self.locate(where.get("end", {}))
        end = self.file, self.line
        self.file, self.line = line_of_name if node.get("loc", {}).get("offset") is not None else begin
        outer, outer_template = self.function, self.in_template
        if self.file is not None and not implicit:
            self.check(node, kind)
        self.file, self.line = end
        if kind == "FunctionTemplateDecl":
            self.in_template = True  # its first function is the pattern, others are instances
            for child in node.get("inner", []):
                self.visit(child, implicit)
                if child.get("kind") in ("FunctionDecl", "CXXMethodDecl"):
                    self.in_template = outer_template
        else:
            for child in node.get("inner", []):
                self.visit(child, implicit)
        self.function, self.in_template = outer, outer_template

    def check(self, node: dict, kind: str) -> None:
        type_text = node.get("type", {}).get("qualType", "")
        if kind in ("FunctionDecl", "CXXMethodDecl", "CXXConversionDecl"):
            self.same[node["id"]] = self.same.get(node.get("previousDecl"), node["id"])
            self.function = None if self.in_template else self.same[node["id"]]
            self.names[self.same[node["id"]]] = node.get("name", "?")
            self.pointers(node, type_text.split("(")[0] + " ")
            if node.get("virtual"):
                self.report(f"no virtual functions: {node.get('name')}")
        elif kind in ("VarDecl", "ParmVarDecl", "FieldDecl", "TypedefDecl", "TypeAliasDecl"):
            self.pointers(node, type_text)
            if kind == "VarDecl" and node.get("storageClass") == "static":
                self.report(f"no static variables: {node.get('name')}")
        elif kind in ("CStyleCastExpr", "CXXReinterpretCastExpr", "CXXStaticCastExpr", "CXXConstCastExpr", "CXXFunctionalCastExpr"):
            self.pointers(node, type_text)
        elif kind == "LambdaExpr":
            self.report("no lambdas")
        elif kind == "MemberExpr" and type_text == "<bound member function type>":
            self.method(node)
        self.call(node)

    def method(self, node: dict) -> None:
        """Metal's methods are of objects in thread memory, where they do not say otherwise; OpenCL's are of all."""
        base = (node.get("inner") or [{}])[0]
        if base.get("castKind") == "AddressSpaceConversion" and "__generic" in base["type"]["qualType"]:
            source = base["inner"][0]["type"]["qualType"]
            if re.search(r"__(global|local|constant)\b", source):
                self.report(f"a method of an object that is not in thread memory: {node.get('name')}, of {source!r}")

    def call(self, node: dict) -> None:
        for target in (node.get("referencedDecl", {}).get("id"), node.get("referencedMemberDecl")):
            if target and self.function:
                self.calls.setdefault(self.function, set()).add(self.same.get(target, target))

    def recursion(self) -> None:
        def reaches(start: str, function: str, seen: set[str]) -> bool:
            for target in self.calls.get(function, ()):
                if target == start or (target not in seen and not seen.add(target) and reaches(start, target, seen)):
                    return True
            return False

        for function in self.calls:
            if function in self.names and reaches(function, function, set()):
                self.found.append(f"no recursion: {self.names[function]} calls itself")


def one_instance_each(text: str) -> str:
    """The tree of all instances would be large; a kernel's instances differ in numbers alone."""
    seen: set[str] = set()
    return ONE_INSTANCE.sub(lambda m: "" if m[1] in seen or seen.add(m[1]) else m[0], text)


def opencl(clang: str, path: Path, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [clang, "-x", "clcpp", "-cl-std=clc++2021", "-cl-no-stdinc", "-fsyntax-only", "-isystem", str(HERE),
         "-Wno-everything", "-fno-color-diagnostics", *more, str(path)], capture_output=True, text=True)


def cpp14(clang: str, translated: str) -> list[str]:
    """Metal before version 4 is C++14. Of what is newer Clang takes literals like 0x1p-3f in every version. Instances do not
    matter for that."""
    reduced = Path(translated + ".14.cpp")
    reduced.write_text(CPP_ENTRY.sub("", Path(translated).read_text()))
    result = subprocess.run(
        [clang, "-std=c++14", "-fsyntax-only", "-isystem", str(HERE), "-Wno-everything", "-fno-color-diagnostics",
         "-Wc++17-extensions", "-Wc++20-extensions", str(reduced)], capture_output=True, text=True)
    return [line for line in result.stderr.splitlines()
            if re.search("error:|warning:", line) and "hexadecimal floating literals" not in line]


def address_spaces(clang: str, translated: str) -> list[str]:
    result = opencl(clang, Path(translated + ".clcpp"))
    return [line for line in result.stderr.splitlines() if "error:" in line] if result.returncode else []


def check(clang: str, translated: str) -> list[str]:
    errors = cpp14(clang, translated) + address_spaces(clang, translated)
    if errors:
        return errors
    reduced = Path(translated + ".one.clcpp")
    reduced.write_text(one_instance_each(Path(translated + ".clcpp").read_text()))
    tree = Tree()
    sys.setrecursionlimit(10000)
    tree.visit(json.loads(opencl(clang, reduced, "-Xclang", "-ast-dump=json").stdout))
    tree.recursion()
    return tree.found + words(Path(translated + ".preprocessed").read_text())


def main() -> None:
    found = check(sys.argv[1], sys.argv[2])
    print("\n".join(found) or "nothing was found")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
