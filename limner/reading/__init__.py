"""CLIP and captioning models used on their own: captions for pictures, search by words, a check of captions."""
