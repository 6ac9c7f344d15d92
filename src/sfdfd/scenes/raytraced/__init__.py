"""Path-traced focal stacks: the judge that shares no code with our optics."""
