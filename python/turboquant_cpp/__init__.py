"""TurboQuant KV caches for Python hosts; `turboquant_cpp.mlx` is the one for MLX and mlx-lm."""

__version__ = "0.1.0"
