"""What the studies of whole tables (heterogeneity, participation) share: settings, searches, tables, pictures."""
