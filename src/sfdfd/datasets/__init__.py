"""Where focal stacks come from: procedural scenes, RGB-D images rendered into stacks, recorded stacks."""
