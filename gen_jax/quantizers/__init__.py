"""Quantizers: from an encoder's vectors to codes and back. Read `quantizer.py` first."""

from gen_jax.quantizers.codebook import residual, vq
from gen_jax.quantizers.quantizer import Quantized, Quantizer
from gen_jax.quantizers.scalar import fsq, lfq

__all__ = ['Quantized', 'Quantizer', 'fsq', 'lfq', 'residual', 'vq']
