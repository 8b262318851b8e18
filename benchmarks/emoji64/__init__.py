"""The data set emoji64: emoji of three vendors at 64 px, made of three packages of npm."""
