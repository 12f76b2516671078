"""mlx-lm's own programs with a packed KV cache."""

import argparse
import functools
import importlib
import logging
import sys

import mlx.core as mx

from . import ops
from .model import describe, enable

PROGRAMS = ("generate", "chat", "server", "cache_prompt")
log = logging.getLogger("turboquant_cpp.mlx")


def own_options():
    parser = argparse.ArgumentParser(
        prog="python -m turboquant_cpp.mlx",
        usage="python -m turboquant_cpp.mlx {" + ",".join(PROGRAMS) + "} [--tq-OPTION ...] [OPTIONS OF mlx_lm]",
        description="Runs mlx_lm.PROGRAM with a packed KV cache. All options of mlx_lm.PROGRAM are its own: "
        "python -m mlx_lm PROGRAM --help lists them.",
        allow_abbrev=False,
    )
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--tq-preset", default="fast", help="bits and kind of codes, docs/presets.md (default: fast)")
    parser.add_argument("--tq-calibration", metavar="FILE", help="a file of tq calibrate for this model")
    parser.add_argument("--tq-layers", type=_layers, metavar="FIRST-LAST", help="the layers to pack (default: all)")
    parser.add_argument("--tq-device", choices=("cpu", "gpu"), help="the device for everything (default: MLX's)")
    return parser


def _layers(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


class _Loader:
    """mlx-lm's load(), after which the model has packed caches."""

    def __init__(self, options):
        self.options = options
        self.described = None  # of the model loaded last

    def wrap(self, load):
        @functools.wraps(load)
        def loaded(*args, **kwargs):
            result = load(*args, **kwargs)
            model, o = result[0], self.options
            enable(model, o.tq_preset, o.tq_calibration, o.tq_layers)
            self.described = describe(model.make_cache())
            return result

        return loaded


def _refuse_other_caches(rest):
    for option in ("--max-kv-size", "--kv-bits"):
        if any(a == option or a.startswith(option + "=") for a in rest):
            sys.exit(f"{option} asks for another kind of cache of mlx-lm's; leave it out, or run python -m mlx_lm")


def _serve_description(server, loader):
    """The effective mode in a header of every answer, /v1/models' among them."""
    end_headers = server.APIHandler.end_headers

    def with_header(handler):
        handler.send_header("X-TurboQuant", loader.described or "turboquant: no model is loaded yet")
        end_headers(handler)

    server.APIHandler.end_headers = with_header


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(sys.argv) > 1 and sys.argv[1] in PROGRAMS and {"-h", "--help"} & set(sys.argv[2:]):
        own_options().print_help()
        print(f"\nThe options of mlx_lm {sys.argv[1]}:\n")
        sys.argv = [f"mlx_lm {sys.argv[1]}", "--help"]
        importlib.import_module(f"mlx_lm.{sys.argv[0].split()[1]}").main()
        return
    options, rest = own_options().parse_known_args()
    _refuse_other_caches(rest)
    ops.title(options.tq_preset)
    if options.tq_device:
        mx.set_default_device(getattr(mx, options.tq_device))
    program = importlib.import_module(f"mlx_lm.{options.program}")
    loader = _Loader(options)
    for name in ("load", "sharded_load"):
        if hasattr(program, name):
            setattr(program, name, loader.wrap(getattr(program, name)))
    if options.program == "server":
        _serve_description(program, loader)
    sys.argv = [f"mlx_lm.{options.program}", *rest]
    program.main()


if __name__ == "__main__":
    main()
