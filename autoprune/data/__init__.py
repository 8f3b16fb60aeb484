"""What a network reads: texts and images in every form that people have them in, and splits that never mix."""
