# SPDX-License-Identifier: Apache-2.0
"""`fourwave serve` on the running kernel, with the programs its users have."""
