"""The only room that talks to PostgreSQL: migrations, loading and saving of books, read models."""
