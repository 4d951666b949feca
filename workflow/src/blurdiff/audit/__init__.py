"""The paper against the authors' released code: every difference measured, without a trained network."""
