"""What every room uses: errors, choices by name, devices, files, progress, the command line."""
