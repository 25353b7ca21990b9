"""What others could damage, fed to its reader a million times: only a refusal may come of it (`make fuzz`)."""
