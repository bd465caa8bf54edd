"""Orders whose sale is decided anew once two persons agree. Begin with `proposals`, then `carrying_out`."""
