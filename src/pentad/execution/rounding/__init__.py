"""Rounding of numbers onto what formats can hold: grids, the choice of scales, and packing. See grid.py."""
