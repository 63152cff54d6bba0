# SPDX-License-Identifier: Apache-2.0
"""The running kernel: load the programs, read what they say, name what only it can name."""
