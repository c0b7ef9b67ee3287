"""The run view: what stands, found by anything but the key. A projection of the journal that can be thrown away."""
