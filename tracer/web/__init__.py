# SPDX-License-Identifier: Apache-2.0
"""The HTTP side of `fourwave serve`: its own process, without root, that shows samples."""
