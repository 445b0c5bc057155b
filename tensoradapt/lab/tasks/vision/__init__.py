"""Pictures: folders of them, their pixels, and the tasks that have them."""
