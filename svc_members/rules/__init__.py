"""What the members service decides, without I/O: `binding` first."""
