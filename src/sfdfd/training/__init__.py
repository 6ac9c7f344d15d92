"""The LightningModule, its augmentation, callbacks and checkpoints. No Hydra here."""
