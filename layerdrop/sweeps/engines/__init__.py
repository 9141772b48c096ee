"""Where runs execute: worker processes of this machine that stay warm, or a Ray cluster."""
