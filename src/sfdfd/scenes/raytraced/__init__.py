"""Path-traced focal stacks, rendered by Mitsuba independently of :mod:`sfdfd.optics`."""
