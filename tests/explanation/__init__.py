"""Why a call would hit or miss."""
