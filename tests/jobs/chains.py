"""The recipes of conf/ in the order in which they need each other."""

ONE, TWO, THREE = (["--training.epochs", str(epochs)] for epochs in (1, 2, 3))
# Recipes, each after the ones it needs -> the settings that make it short. Recipes with a warm-up need one more epoch.
CHAINS = {
    "demo": {"demo": TWO},
    "simple_cnn": {"simple_cnn": TWO},
    "nih": {"nih": ONE},
    "chexnet": {"chexnet": [*ONE, "--training.weights", "IMAGENET"]},
    "two_stages": {"two_stages": [*TWO, "--training.head_epochs", "1", "--training.weights", "IMAGENET"]},
    "pretrain and finetune": {
        "pretrain": THREE,
        "finetune": [*ONE, "--training.head_epochs", "1", "--training.weights", "PRETRAIN"],
    },
}
OTHERS = {"lungs"}
"""recipes with a test of their own"""
