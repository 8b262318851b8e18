"""Quality metrics of generators: a registry, feature statistics, and one file per metric."""
