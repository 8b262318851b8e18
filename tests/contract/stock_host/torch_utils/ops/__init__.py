"""Operations straight from their definitions."""
