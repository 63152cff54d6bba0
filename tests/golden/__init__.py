# SPDX-License-Identifier: Apache-2.0
"""One small recording per named close, and what it must be read as."""
