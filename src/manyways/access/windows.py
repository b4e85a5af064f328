"""The arithmetic of limits: plain values, time handed in."""
