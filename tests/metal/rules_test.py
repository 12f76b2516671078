#!/usr/bin/env python3
"""What Metal forbids is found where it is planted, each by its words: rules_test.py CLANG REPOSITORY."""
import os
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLANG, REPOSITORY = sys.argv[1], sys.argv[2]
KERNEL = """
kernel void k(device float* out [[buffer(0)]], device const float* in [[buffer(1)]], constant int& n [[buffer(2)]],
              uint i [[thread_position_in_grid]]) {
    %s
}
"""

# name: (text before the kernel, the kernel's body, what must be said)
PLANTED = {
    "threadgroup_as_device": (
        "inline float f(device const float* x) { return *x; }",
        "threadgroup float shared[32]; shared[i] = 0; out[i] = f(shared);", "no matching function for call to 'f'"),
    "device_as_thread": ("inline float f(thread const float& x) { return x; }", "out[i] = f(in[i]);", "no matching function"),
    "device_to_threadgroup_variable": ("", "threadgroup const float* p = in; out[i] = p[0];", "cannot initialize a variable of type"),
    "write_to_constant": ("constant float table[2] = {1, 2};", "table[i] = 1; out[i] = table[0];", "cannot assign to variable 'table'"),
    "unqualified_parameter": ("inline float f(float* x) { return *x; }", "float a = in[i]; out[i] = f(&a);",
                              "without an address space: x"),
    "unqualified_reference": ("inline void f(float& x) { x = 1; }", "float a; f(a); out[i] = a;", "without an address space: x"),
    "unqualified_in_template": ("template <class T> inline T f(T* x) { return *x; }", "out[i] = in[i];",
                                "without an address space: x"),
    "unqualified_variable": ("", "float a[2] = {1, 2}; const float* p = a; out[i] = p[i & 1];", "without an address space: p"),
    "unqualified_member": ("struct S { float* p; };", "out[i] = in[i];", "without an address space: p"),
    "unqualified_cast": ("", "out[i] = *reinterpret_cast<const float*>(in);", "without an address space: CXXReinterpretCastExpr"),
    "unqualified_result": ("inline float* f(device float* x) { return x; }", "out[i] = *f(out);", "without an address space: f"),
    "pointer_to_pointer": ("", "float a = 1; thread float* p = &a; float* thread* q = &p; out[i] = **q;", "'__generic float"),
    "method_of_device_object": ("struct S { float x; float get() const { return x; } };",
                                "device S* s = reinterpret_cast<device S*>(out); out[i] = s[0].get();",
                                "a method of an object that is not in thread memory: get"),
    "lambda": ("", "auto f = [](float x) { return x; }; out[i] = f(1);", "no lambdas"),
    "recursion": ("inline int f(int n) { return n == 0 ? 0 : f(n - 1); }", "out[i] = f(3);", "no recursion: f"),
    "mutual_recursion": ("int f(int n); inline int g(int n) { return f(n); } int f(int n) { return n == 0 ? 0 : g(n - 1); }",
                         "out[i] = f(3);", "no recursion"),
    "recursion_of_template": ("template <class T> inline T f(T n) { return n == 0 ? T(0) : f(n - 1); }", "out[i] = f(3);",
                              "no recursion: f"),
    "static_variable": ("", "static constant float x = 1; out[i] = x; static int y; out[i] += y;", "no static variables: y"),
    "virtual": ("struct S { virtual float f() { return 1; } };", "out[i] = 1;", "virtual functions"),
    "double_type": ("", "double x = in[i]; out[i] = x;", "there is no double"),
    "double_literal": ("", "out[i] = in[i] * 0.5;", "would be a double: 0.5"),
    "double_exponent": ("", "out[i] = in[i] * 1e-3;", "would be a double: 1e-3"),
    "goto": ("", "goto end; end: out[i] = 1;", "no goto"),
    "new": ("", "out[i] = *new float(1);", "new' is not supported"),
    "threadgroup_variable_in_function": ("inline void f() { threadgroup float x[4]; x[0] = 1; }", "f(); out[i] = 1;",
                                         "kernel"),
    "if_constexpr": ("", "if constexpr (sizeof(int) == 4) out[i] = 1;", "constexpr if is a C++17 extension"),
    "fold": ("template <class... T> inline float f(T... x) { return (0.0f + ... + x); }", "out[i] = f(1.0f, 2.0f);", "C++17"),
    "inline_variable": ("inline constexpr constant int x = 1;", "out[i] = x;", "C++17"),
    "concept": ("template <class T> requires true inline T f(T x) { return x; }", "out[i] = f(1.0f);", "error"),
    # These are found before, by the translation.
    "standard_header": ("#include <cmath>", "out[i] = 1;", "'cmath' file not found"),
    "parameter_without_attribute": ("kernel void l(device float* out) { out[0] = 1; }", "out[i] = 1;", "has no [[buffer(n)]]"),
    "unknown_attribute": ("kernel void l(device float* out [[bufer(0)]]) { out[0] = 1; }", "out[i] = 1;", "unknown attribute 'bufer(0)'"),
    "instance_of_another": ("template <int n> kernel void l(device float* o [[buffer(0)]]) { o[0] = n; }\n"
                            'template [[host_name("l")]] [[kernel]] decltype(l<1>) l<2>;', "out[i] = 1;", "is not what is instantiated"),
    "other_instance": ("template <int n> kernel void l(device float* o [[buffer(0)]]) { o[0] = n; }\n"
                       'template [[host_name("l")]] kernel void l<1>(device float*);', "out[i] = 1;", "neither a kernel's definition"),
}

GOOD = """
struct Pair { float x, y; float sum() const { return x + y; } };
constant constexpr float kTable[3] = {0.5f, 0x1p-3f, 1e3f};
template <int n> inline float power(float x) { return x * power<n - 1>(x); }
template <> inline float power<0>(float) { return 1.0f; }
template <int n> struct Many { float x[2 * n]; };
template <int n> inline float first(thread const Many<2 * n>& many) { return many.x[0]; }
template <int n> inline float many() { float x[3 * n]; x[0] = 1; Many<2 * n> m; m.x[0] = x[0]; return first<n>(m); }
inline Pair load(device const float* x) { Pair p; p.x = x[0]; p.y = x[1]; return p; }
inline void twice(thread float& x) { x *= 2; }
"""
GOOD_BODY = """
    threadgroup float shared[32];
    shared[i] = power<3>(in[i]) * kTable[i % 3];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup float* next = shared + (i + 1) % 32;
    device const Pair* pairs = reinterpret_cast<device const Pair*>(in);
    const Pair one = pairs[0], two = load(in);
    float x = *next + one.sum() + two.sum() + float(n);
    twice(x);
    x += many<2>();
    out[i] = x;
"""


def check(head: str, body: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "planted.metal")
        text.write_text("#include <metal_stdlib>\nusing namespace metal;\n" + head + KERNEL % body)
        translated = str(Path(folder, "planted.cpp"))
        step = subprocess.run([str(HERE / "translate.sh"), CLANG, REPOSITORY, "planted", translated, "--", str(text)],
                              capture_output=True, text=True)
        if step.returncode == 0:
            step = subprocess.run([sys.executable, str(HERE / "rules.py"), CLANG, translated], capture_output=True, text=True)
        return "" if step.returncode == 0 else step.stdout + step.stderr


class Rules(unittest.TestCase):
    def test_good_text_passes(self) -> None:
        self.assertEqual(check(GOOD, GOOD_BODY), "")

    def test_planted(self) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            said = threads.map(lambda planted: check(planted[0], planted[1]), PLANTED.values())
        for (name, (_, _, wanted)), words in zip(PLANTED.items(), said):
            with self.subTest(name):
                self.assertIn(wanted, words)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
