"""What people read, as words: free of terminals, pages and the API."""
