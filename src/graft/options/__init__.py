"""From what the user wrote (arguments, a recipe) to a verb's options. One annotated dataclass field is one option."""
