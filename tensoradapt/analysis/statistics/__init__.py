"""Statistics on arrays: intervals, tests, bootstraps, spectra. No runs, no torch."""
