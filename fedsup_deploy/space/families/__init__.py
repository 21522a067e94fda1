"""Block families. Each module says which layers a block consists of; everything else follows from that."""
