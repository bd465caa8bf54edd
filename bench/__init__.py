"""Claims about speed, one program each: `./daogou bench NAME`. What they are held against is in `floors`."""
