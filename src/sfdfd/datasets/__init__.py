"""Data sets of focal stacks for training and evaluation: synthetic, published and recorded ones."""
