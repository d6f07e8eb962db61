"""What is trained on one model and used on another: adapters plugged into a larger one, ends tuned on an emulator."""
