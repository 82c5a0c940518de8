"""Models as people write them, each with three faults that somebody could plant."""
