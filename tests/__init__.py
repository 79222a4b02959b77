"""Tests: one module per source module; integration/, faults/ and benchmarks/ beside them."""
