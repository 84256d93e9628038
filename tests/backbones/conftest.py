"""e2cnn is imported first by the one file that does it quietly; tests may then import it by themselves."""

import ssl_lens.backbones.steerable.convolution  # noqa: F401
