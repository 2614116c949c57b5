select number + 1
