import java.text.BreakIterator;
import java.text.spi.BreakIteratorProvider;
import java.util.Locale;

/**
 * Breaks Thai text after each character, for a Java runtime that was stripped of the rules for Thai.
 *
 * <p>Elasticsearch's module analysis-common makes its Thai analyzer with every index and fails without any such rules.
 */
public class SpacelessBreaks extends BreakIteratorProvider {
  @Override
  public Locale[] getAvailableLocales() {
    return new Locale[] {Locale.forLanguageTag("th")};
  }

  @Override
  public BreakIterator getWordInstance(Locale locale) {
    return BreakIterator.getCharacterInstance(Locale.ROOT);
  }

  @Override
  public BreakIterator getLineInstance(Locale locale) {
    return BreakIterator.getLineInstance(Locale.ROOT);
  }

  @Override
  public BreakIterator getCharacterInstance(Locale locale) {
    return BreakIterator.getCharacterInstance(Locale.ROOT);
  }

  @Override
  public BreakIterator getSentenceInstance(Locale locale) {
    return BreakIterator.getSentenceInstance(Locale.ROOT);
  }
}
