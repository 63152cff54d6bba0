# SPDX-License-Identifier: Apache-2.0
"""From facts to text: each module one form, none decides anything."""
