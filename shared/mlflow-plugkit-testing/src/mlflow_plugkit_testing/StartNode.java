import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;

/**
 * Starts one Elasticsearch node from the jars on the class path: {@code StartNode <home> <owner's pid> <folder or ""> [setting=value ...]}.
 *
 * <p>Elasticsearch is reached by reflection, since 8 and 9 differ in a signature and one class serves both. The process
 * ends itself as soon as its owner is gone, however the owner ended, and then removes the folder that is given.
 */
public class StartNode {
  private static final long POLL_MILLISECONDS = 300;
  private static final long CLOSE_MILLISECONDS = 10_000;

  public static void main(String[] arguments) throws Exception {
    Path home = Path.of(arguments[0]).toAbsolutePath();
    Optional<ProcessHandle> owner = ProcessHandle.of(Long.parseLong(arguments[1]));
    AutoCloseable node = node(home, arguments);
    node.getClass().getMethod("start").invoke(node);
    System.out.println("STARTED");
    Runtime.getRuntime().addShutdownHook(new Thread(() -> close(node)));
    boolean readable = owner.isPresent() && hasCommand(owner.get());
    while (owner.isPresent() && owner.get().isAlive() && (!readable || hasCommand(owner.get()))) {
      Thread.sleep(POLL_MILLISECONDS);
    }
    Thread closing = new Thread(() -> close(node));
    closing.start();
    closing.join(CLOSE_MILLISECONDS);
    if (!arguments[2].isEmpty()) {
      remove(Path.of(arguments[2]));
    }
    Runtime.getRuntime().halt(0);
  }

  private static AutoCloseable node(Path home, String[] arguments) throws Exception {
    Object builder = Class.forName("org.elasticsearch.common.settings.Settings").getMethod("builder").invoke(null);
    Method put = builder.getClass().getMethod("put", String.class, String.class);
    put.invoke(builder, "path.home", home.toString());
    for (int i = 3; i < arguments.length; i++) {
      String[] setting = arguments[i].split("=", 2);
      put.invoke(builder, setting[0], setting[1]);
    }
    Object settings = builder.getClass().getMethod("build").invoke(builder);
    Class<?> environmentClass = Class.forName("org.elasticsearch.env.Environment");
    Object environment =
        environmentClass.getConstructor(settings.getClass(), Path.class).newInstance(settings, home.resolve("config"));
    Class.forName("org.elasticsearch.common.logging.LogConfigurator").getMethod("configureESLogging").invoke(null);
    Class<?> loaderClass = Class.forName("org.elasticsearch.plugins.PluginsLoader");
    Object modules = modules(loaderClass, environmentClass.getMethod("modulesDir").invoke(environment));
    Object loader =
        loaderClass
            .getMethod("createPluginsLoader", Set.class, Set.class, Map.class, boolean.class)
            .invoke(null, modules, Set.of(), Map.of(), false);
    return (AutoCloseable)
        Class.forName("org.elasticsearch.node.Node")
            .getConstructor(environmentClass, loaderClass)
            .newInstance(environment, loader);
  }

  private static Object modules(Class<?> loaderClass, Object folder) throws Exception {
    for (Method method : loaderClass.getMethods()) {
      if (method.getName().equals("loadModulesBundles")) {
        return method.getParameterCount() == 1 ? method.invoke(null, folder) : method.invoke(null, folder, false);
      }
    }
    throw new IllegalStateException("PluginsLoader.loadModulesBundles is gone: this Elasticsearch is not supported");
  }

  /** A zombie has no command any more: its parent has not asked for its exit status yet, or never will. */
  private static boolean hasCommand(ProcessHandle process) {
    return process.info().command().isPresent();
  }

  private static void close(AutoCloseable node) {
    try {
      node.close();
    } catch (Exception e) {
      e.printStackTrace();
    }
  }

  private static void remove(Path folder) throws IOException {
    try (Stream<Path> paths = Files.walk(folder)) {
      for (Path path : (Iterable<Path>) paths.sorted(Comparator.reverseOrder())::iterator) {
        Files.deleteIfExists(path);
      }
    } catch (UncheckedIOException e) {
      throw e.getCause();
    }
  }
}
