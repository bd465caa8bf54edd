"""What the commission service decides, without I/O: `order` first, then `apportion` and `plan`."""
