"""Does every method learn? All of the catalogue at its defaults on three small models, and what each costs."""
